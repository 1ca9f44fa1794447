"""Losses: each function or module cites the paper and equation it implements.

* :mod:`~crossmodal.losses.ge2e`: softmax, contrast and supervised GE2E (speaker encoder, face encoder).
* :mod:`~crossmodal.losses.speech2face`: the three-term loss of the voice encoder and its ablations.
* :mod:`~crossmodal.losses.decoder`: landmarks, texture and feature of the face decoder.
* :mod:`~crossmodal.losses.vocoder`: multi-resolution STFT, mel, adversarial and feature matching.

Everything is a mean over examples, so that no balance between terms depends on the batch size.
"""

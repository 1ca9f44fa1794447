"""The networks, one file each, and the table of their names.

| kind | maps | to | file |
| --- | --- | --- | --- |
| ``speaker-encoder`` | speech | speaker embedding (``ge2e-256``) | ``speaker_encoder`` |
| ``speaker-encoder-coqui`` | speech | speaker embedding (coqui's H/ASP, LSTM) | ``coqui_speaker`` |
| ``voice-encoder-conv`` | spectrogram | face feature (Speech2Face) | ``voice_encoder`` |
| ``voice-encoder-ast`` | log-mel filterbank | face feature (AST) | ``voice_encoder`` |
| ``feature-head`` | speaker embedding | distribution over face features | ``feature_head`` |
| ``face-dlib`` | face chip | face feature ``dlib-128`` | ``face_features`` |
| ``face-facenet`` | face chip | face feature ``facenet-512`` | ``face_features`` |
| ``face-vggface`` | face chip | face feature ``vggface-4096`` | ``face_features`` |
| ``face-encoder-vgg19`` | face chip | speaker embedding (SGE2E) | ``face_encoder`` |
| ``face-encoder-head`` | face feature | speaker embedding (SGE2E) | ``face_encoder`` |
| ``face-decoder`` | face feature | landmarks + texture → face image (Cole) | ``face_decoder`` |
| ``face-decoder-unwarped`` | face feature | landmarks, face image (Face From Voice) | ``unwarped_decoder`` |
| ``acoustic`` | tokens + speaker embedding | log-mel, F0 | ``acoustic`` |
| ``acoustic-coqui`` | tokens + speaker embedding | log-mel, F0 | ``coqui_acoustic`` |
| ``vocoder`` | log-mel, F0 | waveform | ``vocoder`` |
| ``vocoder-hifigan`` | log-mel | waveform | ``hifigan`` |
| ``tts-coqui`` | text + speaker embedding | waveform (VITS, YourTTS) | ``coqui_tts`` |
| ``tts-xtts`` | text + speaker embedding | waveform (XTTS v2) | ``xtts`` |

Every network is built from a dataclass config, keeps it as ``.config``, and has a ``debug()`` config that runs in
milliseconds. A network that reads or writes an embedding names it in ``config.input_space`` / ``config.output_space``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossmodal.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

# kind → (module, network class, config class)
TABLE: dict[str, tuple[str, str, str]] = {
    "speaker-encoder": ("speaker_encoder", "SpeakerEncoder", "SpeakerEncoderConfig"),
    "speaker-encoder-coqui": ("coqui_speaker", "CoquiSpeakerEncoder", "CoquiSpeakerEncoderConfig"),
    "voice-encoder-conv": ("voice_encoder", "ConvVoiceEncoder", "ConvVoiceEncoderConfig"),
    "voice-encoder-ast": ("voice_encoder", "ASTVoiceEncoder", "ASTVoiceEncoderConfig"),
    "feature-head": ("feature_head", "FeatureHead", "FeatureHeadConfig"),
    "face-dlib": ("face_features", "DlibFaceFeatures", "DlibConfig"),
    "face-facenet": ("face_features", "FaceNetFeatures", "FaceNetConfig"),
    "face-vggface": ("face_features", "VGGFaceFeatures", "VGGFaceConfig"),
    "face-encoder-vgg19": ("face_encoder", "VGG19FaceEncoder", "VGG19FaceEncoderConfig"),
    "face-encoder-head": ("face_encoder", "HeadFaceEncoder", "HeadFaceEncoderConfig"),
    "face-decoder": ("face_decoder", "FaceDecoder", "FaceDecoderConfig"),
    "face-decoder-unwarped": ("unwarped_decoder", "UnwarpedFaceDecoder", "UnwarpedFaceDecoderConfig"),
    "acoustic": ("acoustic", "AcousticModel", "AcousticConfig"),
    "acoustic-coqui": ("coqui_acoustic", "CoquiAcousticModel", "CoquiAcousticConfig"),
    "vocoder": ("vocoder", "HarmonicVocoder", "VocoderConfig"),
    "vocoder-hifigan": ("hifigan", "HiFiGANVocoder", "HiFiGANConfig"),
    "tts-coqui": ("coqui_tts", "CoquiTTS", "CoquiTTSConfig"),
    "tts-xtts": ("xtts", "XTTS", "XTTSConfig"),
}


def classes(kind: str) -> tuple[type[nn.Module], type]:
    """The network class and config class of ``kind``.

    Raises:
        ConfigError: no network of that name.
    """
    if kind not in TABLE:
        raise ConfigError(f"no network called '{kind}'", remedy=f"known networks: {', '.join(sorted(TABLE))}")
    module_name, network, config = TABLE[kind]
    module = importlib.import_module(f"crossmodal.models.{module_name}")
    return getattr(module, network), getattr(module, config)


def build(kind: str, config: Mapping[str, Any] | None = None, *, size: str = "full") -> nn.Module:
    """Make a network with random weights.

    Args:
        kind: a name of the table above.
        config: values that differ from the defaults of ``size``.
        size: ``full`` (the published or shipped setting) or ``debug`` (runs in milliseconds).
    """
    from crossmodal.config import from_dict, merge, to_dict

    network, config_class = classes(kind)
    base = config_class.debug() if size == "debug" else config_class()  # type: ignore[attr-defined]
    return network(from_dict(config_class, merge(to_dict(base), config or {}), source=kind))

"""Reads what coqui-tts wrote: a folder, or a model of its zoo, → a TTS that a bundle can hold.

===============  ==================================================================================================
``config.json``  the model's configuration; what training needed (data, paths of another machine) is left out
``model.pth``    weights; read without unpickling code, only coqui's plain configuration classes are let through
``model_se.pth``, ``config_se.json``  YourTTS: its speaker encoder
``speaker_ids.json``, ``language_ids.json``  names of numbered speakers and languages
``vocab.json``   XTTS: its text tokens
===============  ==================================================================================================
"""

from __future__ import annotations

import collections
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossmodal.errors import BundleError, ConfigError, DependencyError, SpaceMismatchError
from crossmodal.media import resample
from crossmodal.models.coqui_tts import INSTALL, RATE, CoquiTTS, CoquiTTSConfig
from crossmodal.models.spaces import space_size
from crossmodal.models.xtts import LATENTS, XTTS, XTTSConfig

_ZOO = re.compile(r"tts_models(/[\w.-]+){3}")
_KEPT = ("model", "audio", "model_args", "characters", "use_phonemes", "phonemizer", "phoneme_language",
         "text_cleaner", "add_blank", "enable_eos_bos_chars", "temperature", "length_penalty", "repetition_penalty",
         "top_k", "top_p", "gpt_cond_len", "gpt_cond_chunk_len", "max_ref_len", "sound_norm_refs")  # fmt: skip
_WEIGHTS = ("model.pth", "model_file.pth", "model_file.pth.tar", "best_model.pth", "checkpoint.pth")
SENTENCES = (
    "The north wind and the sun argued about their strength.",
    "A traveller came along the road, wrapped in a warm cloak.",
    "They agreed to see who could make him take it off.",
)
"""What numbered speakers say when their voices are measured."""


def import_coqui(
    source: str | Path, *, space: str | None = None, language: str | None = None, encoder: Any = None
) -> CoquiTTS | XTTS:
    """Build a TTS from coqui's files.

    Args:
        source: a folder with ``config.json`` and ``model.pth``, or a name of the zoo such as
            ``tts_models/multilingual/multi-dataset/your_tts`` (downloaded once by coqui-tts).
        space: the speaker space that its d-vectors belong to. XTTS has its own; 512 components are taken for
            YourTTS's; others have to be named (``ge2e-256`` if the d-vectors came from this library's encoder).
        language: what it shall speak; English if it knows it, else the first of its languages.
        encoder: speaker encoder that measures the voices of numbered speakers; its space becomes the TTS's.

    Raises:
        BundleError: no such folder or model, its files are damaged, or it is of a kind that cannot change its voice.
        SpaceMismatchError: ``space`` has another size than the model's d-vectors.
        DependencyError: coqui-tts or the model's phonemiser is missing.
    """
    folder, config_file, weights_file = _files(source)
    config = read_json(config_file)
    model = str(config.get("model", "")).lower()
    if model not in ("vits", "xtts"):
        remedy = "import VITS, YourTTS or XTTS, which speak by themselves"
        raise BundleError(f"holds a model of kind '{model or 'unknown'}'", source=config_file, remedy=remedy)
    try:
        if model == "xtts":
            return _xtts(folder, config, weights_file, space, language)
        return _vits(folder, config, weights_file, space, language, encoder)
    except ConfigError as error:
        raise BundleError(error.problem, source=config_file, remedy=error.remedy) from error


def _vits(
    folder: Path, config: dict[str, Any], weights: Path, space: str | None, language: str | None, encoder: Any
) -> CoquiTTS:
    args = config.get("model_args", {})
    settings = _settings(config, {"init_discriminator": False, "use_speaker_encoder_as_loss": False})
    languages = _names(folder, config, "language_ids", "languages")
    settings["languages"] = languages
    speakers: list[str] = []
    if args.get("use_d_vector_file") or config.get("use_d_vector_file"):
        size = args.get("d_vector_dim") or config.get("d_vector_dim") or 512
        space = space or ("yourtts-512" if size == 512 else None)
        if space is None:
            remedy = "name the space with --space, e.g. ge2e-256 if this library's encoder made them"
            raise BundleError(f"reads d-vectors of {size} components of an unknown kind", source=folder, remedy=remedy)
        if space_size(space) != size:
            raise SpaceMismatchError(f"its d-vectors have {size} components, not those of {space}", source=folder)
    elif args.get("use_speaker_embedding") or config.get("use_speaker_embedding"):
        settings["speakers"] = speakers = _names(folder, config, "speaker_ids", "speakers")
        if not speakers:
            raise BundleError("has no speaker_ids.json", source=folder, remedy="get the whole folder of the model")
        if encoder is None:
            raise BundleError("needs a speaker encoder that measures its voices", source=folder)
        space = encoder.config.output_space
    else:
        remedy = "import one with many speakers: YourTTS, XTTS, or the VITS of VCTK"
        raise BundleError("speaks in one voice only, which no face can change", source=folder, remedy=remedy)
    assert space is not None
    tts = CoquiTTS(
        CoquiTTSConfig(
            coqui=json.dumps(settings, ensure_ascii=False),
            input_space=space,
            language=_language(folder, languages, language),
            speakers=len(speakers),
            speaker_encoder=json.dumps(_encoder_settings(folder)) if _encoder_file(folder) else "",
        )
    ).eval()
    state = {k: v for k, v in read_checkpoint(weights).items() if not k.startswith(("speaker_encoder.", "disc."))}
    _fit(tts.network, {k: v for k, v in state.items() if not k.startswith("posterior_encoder.")}, weights)
    if file := _encoder_file(folder):
        _fit(tts.encoder, read_checkpoint(file), file)
    if speakers:
        measure_voices(tts, encoder)
    return tts


def _xtts(folder: Path, config: dict[str, Any], weights: Path, space: str | None, language: str | None) -> XTTS:
    args = config.get("model_args", {})
    size = LATENTS * args.get("gpt_n_model_channels", 1024) + args.get("d_vector_dim", 512)
    if space and space != f"xtts-{size}":
        raise SpaceMismatchError(f"it has a space of its own, xtts-{size}, not {space}", source=folder)
    languages = [str(name) for name in config.get("languages", [])]
    settings = {**_settings(config, {}), "languages": languages}
    vocabulary = folder / "vocab.json"
    if not vocabulary.is_file():
        raise BundleError("has no vocab.json", source=folder, remedy="get the whole folder of the model")
    tts = XTTS(
        XTTSConfig(
            coqui=json.dumps(settings, ensure_ascii=False),
            input_space=f"xtts-{size}",
            language=_language(folder, languages, language),
        )
    )
    state = read_checkpoint(weights)
    try:
        tts.take(state, vocabulary.read_text(encoding="utf-8"))
    except (RuntimeError, ValueError) as error:
        raise BundleError(f"does not fit its config.json ({_line(error)})", source=weights) from error
    return tts


def measure_voices(tts: CoquiTTS, encoder: Any) -> None:
    """Fill ``tts.voices``: each numbered speaker says :data:`SENTENCES`, and ``encoder`` embeds what it hears."""
    for number in range(tts.config.speakers):
        spoken = [tts.say_as(sentence, number) for sentence in SENTENCES]
        waveforms = [resample(part.float().cpu().numpy(), tts.sample_rate, RATE) for part in spoken]
        tts.voices[number] = encoder.embed_batch(waveforms).mean(0)


def _files(source: str | Path) -> tuple[Path, Path, Path]:
    """Folder, configuration and weights of a local model or one of the zoo."""
    folder = Path(source)
    if not folder.is_dir():
        if not _ZOO.fullmatch(str(source)):
            remedy = "give a folder with config.json, or a name like tts_models/multilingual/multi-dataset/your_tts"
            raise BundleError("is no folder and no name of coqui's zoo", source=source, remedy=remedy)
        folder = _from_zoo(str(source))
    config = folder / "config.json"
    if not config.is_file():
        raise BundleError("has no config.json", source=folder, remedy="give the folder of a coqui-tts model")
    named = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    found = named or sorted(
        path
        for path in folder.glob("*.pth*")
        if not path.name.startswith(("model_se", "speakers", "mel_stats", "dvae"))
    )
    if not found:
        raise BundleError("has no model.pth", source=folder, remedy="get the whole folder of the model")
    return folder, config, found[-1] if not named else found[0]


def _from_zoo(name: str) -> Path:
    """Folder of a zoo model, downloaded by coqui-tts unless it is there.

    Raises:
        BundleError: no such model, its terms were not accepted, or it could not be had.
    """
    try:
        from TTS.utils.manage import ModelManager
    except ImportError as error:
        raise DependencyError(f"cannot be imported ({error})", source="coqui-tts", remedy=INSTALL) from error
    manager: Any = ModelManager()
    kind, language, data, model = name.split("/")
    entry = manager.models_dict.get(kind, {}).get(language, {}).get(data, {}).get(model)
    if entry is None:
        raise BundleError("is not in coqui's zoo", source=name, remedy="tts --list_models prints its names")
    kept = Path(manager.output_prefix) / name.replace("/", "--")
    if not manager.tos_agreed(entry, kept):
        remedy = "read https://tts-hub.github.io/cpml (not for commercial use), then set COQUI_TOS_AGREED=1"
        raise BundleError("has terms of its own to accept", source=name, remedy=remedy)
    try:
        path = Path(manager.download_model(name)[0])
    except Exception as error:  # requests, zipfile, huggingface_hub and coqui raise their own
        remedy = "check the network, or give the folder of a copy"
        raise BundleError(f"cannot be had ({_line(error)})", source=name, remedy=remedy) from error
    return path if path.is_dir() else path.parent


def _settings(config: dict[str, Any], args: dict[str, Any]) -> dict[str, Any]:
    """What speaking needs of a configuration: no data sets, and no paths of the machine it was trained on."""
    settings = {key: config[key] for key in _KEPT if key in config}
    settings["model"] = str(settings["model"]).lower()
    settings["datasets"] = [
        {key: entry[key] for key in ("language", "phonemizer") if entry.get(key)}
        for entry in config.get("datasets", [])
    ]
    for part in ("audio", "model_args"):
        values = config.get(part, {})
        settings[part] = {k: v for k, v in values.items() if not k.endswith(("_file", "_path", "_checkpoint"))}
        if "use_d_vector_file" in values:
            settings[part]["use_d_vector_file"] = values["use_d_vector_file"]
    settings["model_args"].update(args)
    return settings


def _names(folder: Path, config: dict[str, Any], file: str, key: str) -> list[str]:
    """Names of speakers or languages in the order of their numbers."""
    for name in (f"{file}.json", f"{key}.json"):
        if (folder / name).is_file():
            numbers = read_json(folder / name)
            if all(isinstance(number, int) for number in numbers.values()):
                return sorted(numbers, key=lambda entry: int(numbers[entry]))
    for name in (f"{file}.pth", f"{key}.pth"):
        if (folder / name).is_file():
            stored = _load(folder / name)
            if isinstance(stored, dict) and all(isinstance(number, int) for number in stored.values()):
                return sorted(stored, key=lambda entry: int(stored[entry]))
    return [str(name) for name in config.get(key) or []]


def _language(folder: Path, languages: list[str], wanted: str | None) -> str:
    if wanted is None:
        english = [name for name in languages if name.split("-")[0] == "en"]
        return (english or languages or ["en"])[0]
    if languages and wanted not in languages:
        remedy = f"it speaks {', '.join(languages)}"
        raise BundleError(f"does not speak '{wanted}'", source=folder, remedy=remedy)
    return wanted


def _encoder_file(folder: Path) -> Path | None:
    found = [folder / name for name in ("model_se.pth", "model_se.pth.tar") if (folder / name).is_file()]
    return found[0] if found and (folder / "config_se.json").is_file() else None


def _encoder_settings(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config_se.json")
    return {key: config[key] for key in ("model_params", "audio") if key in config}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; older ones of coqui have comments."""
    try:
        text = path.read_text(encoding="utf-8")
        try:
            content = json.loads(text)
        except ValueError:
            content = json.loads(re.sub(r'("(?:[^"\\]|\\.)*")|/\*.*?\*/|//[^\n]*', r"\1", text, flags=re.DOTALL))
    except (OSError, ValueError) as error:
        raise BundleError(f"is no readable JSON ({_line(error)})", source=path, remedy="get it again") from error
    if not isinstance(content, dict):
        raise BundleError("is no JSON object", source=path, remedy="get it again")
    return content


def _plain_classes() -> list[Any]:
    """coqui's configuration classes, which old checkpoints hold beside the weights: data without behaviour."""
    from TTS.config import shared_configs as shared
    from TTS.tts.configs import shared_configs, vits_config, xtts_config

    old = "TTS.tts.models"  # where two of them lived when XTTS was published, and VITS's
    return [
        collections.defaultdict, dict, xtts_config.XttsConfig, xtts_config.XttsArgs, xtts_config.XttsAudioConfig,
        (xtts_config.XttsArgs, f"{old}.xtts.XttsArgs"), (xtts_config.XttsAudioConfig, f"{old}.xtts.XttsAudioConfig"),
        vits_config.VitsConfig, vits_config.VitsArgs, (vits_config.VitsArgs, f"{old}.vits.VitsArgs"),
        shared.BaseAudioConfig, shared.BaseDatasetConfig, shared_configs.CharactersConfig,
    ]  # fmt: skip


def _load(path: Path) -> Any:
    """What ``torch.save`` wrote, as far as it is tensors, plain Python and coqui's configurations.

    Raises:
        BundleError: the file is damaged, or holds objects of other classes.
    """
    try:
        with torch.serialization.safe_globals(_plain_classes()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"objects of the class {named[1]}" if named else "more than tensors"
        remedy = 'where you trust its source, save it again as torch.save({"model": checkpoint["model"]}, FILE)'
        raise BundleError(f"holds {what}, which are not unpickled", source=path, remedy=remedy) from error
    except Exception as error:
        raise BundleError(f"cannot be read ({_line(error)})", source=path, remedy="get it again") from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, by name."""
    content = _load(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BundleError("holds no weights of a coqui-tts model", source=path, remedy="give its model.pth")
    return {str(name): value for name, value in state.items()}


def _fit(module: Any, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)  # coqui and torch rename what older versions called otherwise
    except RuntimeError as error:
        raise BundleError(f"does not fit its config.json ({_line(error)})", source=path) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

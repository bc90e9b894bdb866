"""The published Stable Diffusion 1 in the course's own code: files on disk in, a pipeline out.

    folder = find_published()                    # None where the weights are not on this machine
    pipe = load_published_pipeline(folder)
    pipe(["a photograph of an astronaut riding a horse"], scale=7.5, steps=25)       # (1, 3, 512, 512)

The folder is laid out as published: `unet`, `vae`, `text_encoder` and `tokenizer`. Only safetensors are read.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from course_lib import runtime
from course_lib.models.clip_tokenizer import CLIPTokenizer
from course_lib.models.controlnet import ControlNet
from course_lib.models.latent import LatentDiffusion, stable_diffusion_v1
from course_lib.models.published import load_published, read_weights

REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # on the Hugging Face Hub
VARIABLE = "COURSE_STABLE_DIFFUSION"  # a folder with the weights
PARTS = {  # folder -> the name of its file, without "fp16" and the ending
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


def weights_file(folder: Path | str, part: str) -> Path:
    """The safetensors file of a part, in float32 or, where only that is there, in float16.

    Raises FileNotFoundError, which names the folder, where there is neither.
    """
    place = Path(folder) / part
    for middle in ("", ".fp16"):
        path = place / f"{PARTS[part]}{middle}.safetensors"
        if path.exists():
            return path
    raise FileNotFoundError(f"{place} has no {PARTS[part]}.safetensors; Stable Diffusion 1 is published with one")


def find_published(download: bool = False) -> Path | None:
    """The folder of the published weights: `$COURSE_STABLE_DIFFUSION`, or the Hugging Face cache; None without either.

    `download=True` fetches them, 4 GB; where that fails, None. Raises FileNotFoundError where the variable names a
    folder that is not there: the learner meant something by it.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_dir():
            raise FileNotFoundError(
                f"{VARIABLE}={named} is no folder; unset it, or let it name the one with unet/ in it"
            )
        return Path(named)
    from huggingface_hub import snapshot_download

    wanted = [f"{part}/{name}.safetensors" for part, name in PARTS.items()]
    wanted += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    try:
        found = snapshot_download(
            REPOSITORY, local_files_only=not download, allow_patterns=wanted
        )  # fmt: skip
        for part in PARTS:
            weights_file(found, part)
    except (OSError, ValueError):  # not in the cache, or no network
        return None
    return Path(found)


def load_published_pipeline(
    folder: Path | str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> LatentDiffusion:
    """Stable Diffusion 1 from a folder, in eval mode, without gradients.

    `dtype`: by default that of the files on a GPU, float32 on a CPU. Raises FileNotFoundError where a file is missing,
    WeightsError for a file that does not fit.
    """
    device = torch.device(device or runtime.device())
    tokenizer = CLIPTokenizer.from_folder(Path(folder) / "tokenizer")
    with torch.device("meta"):
        pipe = stable_diffusion_v1(tokenizer)
    networks = {"unet": pipe.unet, "vae": pipe.space.autoencoder, "text_encoder": pipe.text.tower}
    for part, network in networks.items():
        load_published(network, read_weights(weights_file(folder, part)))
    chosen = dtype or (torch.float32 if device.type == "cpu" else None)
    for network in (pipe.unet, pipe.space, pipe.text):
        network.to(device=device, dtype=chosen).requires_grad_(False).eval()
    return pipe


def load_published_controlnet(path: Path | str, pipe: LatentDiffusion) -> ControlNet:
    """A published ControlNet for Stable Diffusion 1 from its safetensors file, where the pipeline's U-Net is."""
    with torch.device("meta"):
        net = ControlNet(stable_diffusion_v1().unet)
    load_published(net, read_weights(path))
    some = next(pipe.unet.parameters())
    return net.to(device=some.device, dtype=some.dtype).requires_grad_(False).eval()

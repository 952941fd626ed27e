"""Cards of the frozen image encoders: what each sees and gives, and under which license. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from sq_imputer.errors import BadInput

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
POOLS = ("model", "token", "token+mean", "attention")


@dataclass(frozen=True)
class EncoderCard:
    """What a user must know before running an image encoder, and what is needed to build it.

    Parameters
    ----------
    name
        The key of the registry.
    dim
        Features per crop.
    size_px
        Side of the crops it expects, in pixels.
    mpp
        Resolution it was made for, in µm per pixel.
    mean, std
        Normalization of the channels red, green, blue, after division by 255.
    license
        License of the weights, or of the code where there are none.
    commercial
        Whether that license allows commercial use.
    gated
        Whether the terms must be accepted on the Hugging Face Hub before the download.
    source
        Repository on the Hugging Face Hub; empty if the encoder has no weights there.
    revision
        Branch, tag or commit of the repository.
    file
        The safetensors file in the repository.
    paper
        Authors, venue, year, DOI or arXiv id.
    any_size
        Whether crops of other sizes than `size_px` are accepted.
    architecture
        timm model that the weights belong to; empty if the encoder is built otherwise.
    options
        Keyword arguments of the timm model. `mlp_layer` is the name of a class in `timm.layers`.
    pool
        `"model"`: as the timm model pools; `"token"`: class token; `"token+mean"`: class token and mean patch token;
        `"attention"`: one attending query, as in CoCa.
    layout
        How the weights are named: `"timm"`, `"dinov2"` (transformers) or `"conch"`.
    note
        What is uncertain or peculiar.
    """

    name: str
    dim: int
    size_px: int
    mpp: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str
    commercial: bool
    gated: bool
    source: str = ""
    revision: str = "main"
    file: str = "model.safetensors"
    paper: str = ""
    any_size: bool = False
    architecture: str = ""
    options: Mapping = field(default_factory=dict, hash=False)  # mappings have none
    pool: str = "token"
    layout: str = "timm"
    note: str = ""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.size_px < 1 or not self.mpp > 0:
            raise BadInput(
                f"encoder '{self.name}': dim {self.dim}, size_px {self.size_px}, mpp {self.mpp}; all must be positive."
            )
        if self.pool not in POOLS:
            raise BadInput(f"encoder '{self.name}': pool is '{self.pool}'; it is one of {', '.join(POOLS)}.")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __reduce__(self):
        """Made anew of its fields: `options` itself can be neither copied nor sent to another process."""
        values = [getattr(self, one.name) for one in fields(self)]
        return type(self), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)

    @property
    def slot(self) -> str:
        """The name as it may stand in a SpatialData object, which allows no colon."""
        return self.name.replace(":", "_")

    @property
    def extent_um(self) -> float:
        """Side of the tissue that the encoder was made to see, in µm."""
        return self.size_px * self.mpp


TEXTURE = EncoderCard(
    name="texture",
    dim=231,
    size_px=224,
    mpp=0.5,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    license="BSD-3-Clause",
    commercial=True,
    gated=False,
    file="",
    paper="Stain vectors: Ruifrok and Johnston, Anal Quant Cytol Histol 2001. Local binary patterns: Ojala et al., "
    "IEEE TPAMI 2002, doi:10.1109/TPAMI.2002.1017623.",
    any_size=True,
    note="No weights. Crops of 32 pixels or more; compare features only at one resolution.",
)

_BIN_ONLY = "As far as known the repository holds a pickle (pytorch_model.bin) only; convert it and pass weights=."
_NC = {"license": "CC-BY-NC-ND-4.0", "commercial": False, "gated": True}
_APACHE = {"license": "Apache-2.0", "commercial": True, "gated": True}
_IMAGENET = {"mean": IMAGENET[0], "std": IMAGENET[1]}
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_OPTIMUS = {
    "dim": 1536,
    "size_px": 224,
    "mpp": 0.5,
    "mean": OPTIMUS[0],
    "std": OPTIMUS[1],
    "architecture": "vit_giant_patch14_reg4_dinov2",
    "options": {"img_size": 224, "init_values": 1e-5},
}

_PATHOLOGY = (
    EncoderCard(
        name="uni",
        dim=1024,
        size_px=224,
        mpp=0.5,
        **_IMAGENET,
        **_NC,
        source="MahmoodLab/UNI",
        paper="Chen et al., Nat Med 2024, doi:10.1038/s41591-024-02857-3",
        architecture="vit_large_patch16_224",
        options={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        note=_BIN_ONLY,
    ),
    EncoderCard(
        name="uni2-h",
        dim=1536,
        size_px=224,
        mpp=0.5,
        **_IMAGENET,
        **_NC,
        source="MahmoodLab/UNI2-h",
        paper="Chen et al., Nat Med 2024, doi:10.1038/s41591-024-02857-3 (the larger model of 2025)",
        architecture="vit_giant_patch14_224",
        options={
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "init_values": 1e-5,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        note=_BIN_ONLY,
    ),
    EncoderCard(
        name="virchow2",
        dim=2560,
        size_px=224,
        mpp=0.5,
        **_IMAGENET,
        **_NC,
        source="paige-ai/Virchow2",
        paper="Zimmermann et al., 2024, arXiv:2408.00738",
        architecture="vit_huge_patch14_224",
        options={
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "reg_tokens": 4,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        pool="token+mean",
        note="Trained at 2, 1, 0.5 and 0.25 µm per pixel. Class token and mean patch token, as its authors advise.",
    ),
    EncoderCard(
        name="phikon-v2",
        dim=1024,
        size_px=224,
        mpp=0.5,
        **_IMAGENET,
        license="Owkin non-commercial",
        commercial=False,
        gated=False,
        source="owkin/phikon-v2",
        paper="Filiot et al., 2024, arXiv:2409.09173",
        architecture="vit_large_patch16_224",
        options={"img_size": 224, "init_values": 1.0},
        layout="dinov2",
        note="Published for transformers; its weights are renamed for timm while loading. Not verified: its gate.",
    ),
    EncoderCard(
        name="h-optimus-0",
        **_OPTIMUS,
        **_APACHE,
        source="bioptimus/H-optimus-0",
        paper="Saillard et al., 2024, github.com/bioptimus/releases",
    ),
    EncoderCard(
        name="h-optimus-1",
        **_OPTIMUS,
        **_NC,
        source="bioptimus/H-optimus-1",
        paper="Bioptimus, 2025, huggingface.co/bioptimus/H-optimus-1",
    ),
    EncoderCard(
        name="gigapath",
        dim=1536,
        size_px=224,
        mpp=0.5,
        **_IMAGENET,
        **_APACHE,
        source="prov-gigapath/prov-gigapath",
        paper="Xu et al., Nature 2024, doi:10.1038/s41586-024-07441-w",
        architecture="vit_giant_patch14_dinov2",
        options={"img_size": 224, "patch_size": 16, "init_values": 1e-5},
        note=f"The tile encoder only. Its terms ask for research use. {_BIN_ONLY}",
    ),
    EncoderCard(
        name="conch",
        dim=512,
        size_px=448,
        mpp=0.5,
        mean=CLIP[0],
        std=CLIP[1],
        **_NC,
        source="MahmoodLab/CONCH",
        paper="Lu et al., Nat Med 2024, doi:10.1038/s41591-024-02856-4",
        architecture="vit_base_patch16_224",
        options={"img_size": 448},
        pool="attention",
        layout="conch",
        note="The image tower before the contrastive projection. Architecture and normalization follow the paper and "
        f"were not verified against the weights; weights that do not fit are refused. {_BIN_ONLY}",
    ),
)

BUILTIN = {card.name: card for card in (TEXTURE, *_PATHOLOGY)}

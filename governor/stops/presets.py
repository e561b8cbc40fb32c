"""Thresholds that others published, by model family. None of them was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

Name: TypeAlias = Literal[
    "qwen3", "qwen3-14b", "r1-distill", "r1-distill-qwen-1.5b", "r1-distill-qwen-7b", "gpt-oss"
]  # fmt: skip

MEASURED: Final = "not measured here"
"""What is said beside every figure of a preset."""

_THINKBRAKE = "ThinkBrake (arXiv 2510.00546): tau 0.1 for Qwen3 and DeepSeek-R1 distills"
_REBALANCE = "ReBalance (arXiv 2603.12372), quartiles in its code (yu-lin-li/ReBalance at 844629c, {})"
_R1 = _REBALANCE.format("transformer_inference_steer_dp.py, MODEL_DYN_DEFAULTS")
_QWEN = _REBALANCE.format("transformer_inference_steer_dp_qwen3.py, MODEL_DYN_HPARAMS")
_DEEPCONF = "DeepConf (arXiv 2508.15260): window and k; its threshold is taken anew from 16 traces of each question"


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings of `governor.stops.settings.Stops`, and where each was read: (keys, source)."""

    values: Mapping[str, Any]
    sources: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "; ".join(f"{keys}: {source}" for keys, source in self.sources) + f" ({MEASURED})"


def _edges(low: float, high: float, narrow: float, wide: float) -> dict[str, float]:
    """Quartiles of step confidence and of its variance over two steps."""
    return {"low_confidence": low, "high_confidence": high, "low_variance": narrow, "high_variance": wide}


_MARGIN = {"margin": 0.1}
_SURE = ("margin", _THINKBRAKE)
_EDGES = "the four edges"

PRESETS: Mapping[Name, Preset] = MappingProxyType(
    {
        "qwen3": Preset(_MARGIN, (_SURE,)),
        "qwen3-14b": Preset(_MARGIN | _edges(0.816174, 0.965398, 0.000149, 0.003593), (_SURE, (_EDGES, _QWEN))),
        "r1-distill": Preset(_MARGIN, (_SURE,)),
        "r1-distill-qwen-1.5b": Preset(_MARGIN | _edges(0.662293, 0.94805, 0.000560, 0.011597), (_SURE, (_EDGES, _R1))),
        "r1-distill-qwen-7b": Preset(_MARGIN | _edges(0.666017, 0.927745, 0.000488, 0.009931), (_SURE, (_EDGES, _R1))),
        "gpt-oss": Preset({"group_window": 2048, "group_top": 20}, (("group_window, group_top", _DEEPCONF),)),
    }
)
"""By the name that a policy gives (`stops: {preset: qwen3}`)."""

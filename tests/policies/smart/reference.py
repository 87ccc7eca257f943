"""The reference's numbers for SMART, read where they lie."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catk_sim.datatypes import AgentMetadata
from catk_sim.tokens import MotionTokens, MotionVocabulary
from policies.smart.config import SMARTConfig
from policies.smart.map_tokens import MapTokens
from policies.smart.model import SMART
from tests.shared import shared_path

DENSE_SCENE = "637f20cafde22ff8"
WEIGHTS_SCENE = "1a146468873b7871"


def arrays(name: str) -> dict[str, np.ndarray]:
    """Reads a golden file."""
    return _arrays(shared_path(f"golden/catk/{name}.npz"))


@cache
def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def vocabulary() -> MotionVocabulary:
    """The reference's motion vocabulary."""
    contours = [arrays("reference_vocabularies")[f"agent_{kind}"] for kind in ("veh", "ped", "cyc")]
    corners = torch.from_numpy(np.stack(contours)).double()
    ahead = corners[..., 0, :] - corners[..., 3, :]
    heading = torch.atan2(ahead[..., 1], ahead[..., 0])
    return MotionVocabulary(
        poses=torch.cat([corners.mean(dim=-2), heading[..., None]], dim=-1).float(),
        size=torch.tensor([[4.8, 2.0], [1.0, 1.0], [2.0, 1.0]]),
        digest="reference",
    )


def curves() -> Tensor:
    """The reference's map vocabulary."""
    return torch.from_numpy(arrays("reference_vocabularies")["map"])


def scene(scenario_id: str) -> tuple[MotionTokens, AgentMetadata, MapTokens]:
    """A tokenised scene, in the reference's global coordinates."""
    golden = {
        name: torch.from_numpy(values) for name, values in arrays(f"tok_{scenario_id}_eval").items()
    }
    tokens = MotionTokens(
        token=golden["gt_idx"],
        xy=golden["gt_pos"],
        heading=golden["gt_heading"],
        valid=golden["valid_mask"],
    )
    number, flag = golden["raw_id"], golden["ego_mask"]
    agents = AgentMetadata(
        agent_id=number,
        type=golden["raw_type"].long() + 1,
        size=golden["raw_shape"],
        is_sdc=flag,
        to_predict=flag,
        difficulty=number,
        of_interest=flag,
        valid=torch.ones_like(flag),
    )
    return tokens, agents, _map_tokens(golden)


def _map_tokens(golden: dict[str, Tensor]) -> MapTokens:
    points = golden["map_traj_pos"]
    return MapTokens(
        xy=points[:, 0],
        heading=golden["map_traj_theta"],
        curve_local=points - points[:, :1],
        token=golden["map_token_idx"],
        point_type=golden["map_type"].long(),
        polygon_type=golden["map_pl_type"].long(),
        light=golden["map_light_type"].long(),
        valid=torch.ones(points.shape[0], dtype=torch.bool),
    )


def nano() -> SMART:
    """SMART-nano with the reference's random weights."""
    model = SMART(SMARTConfig.preset("nano"), vocabulary(), curves())
    weights = arrays("nano_random_weights")
    model.load_state_dict(_our_names({k: torch.from_numpy(v) for k, v in weights.items()}))
    return model.eval()


_LAYERS = {
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_k_r": "relation_key",
    "to_v_r": "relation_value",
    "to_s": "skip",
    "to_g": "gate",
    "to_out": "out",
    "attn_prenorm_x_dst": "norm",
    "attn_prenorm_x_src": "norm_source",
    "attn_prenorm_r": "norm_relation",
    "attn_postnorm": "norm_out",
    "ff_prenorm": "feed_forward.0",
    "ff_mlp.0": "feed_forward.1",
    "ff_mlp.3": "feed_forward.4",
    "ff_postnorm": "feed_forward.5",
}
_ATTENTION = {"t": "temporal", "pt2a": "map_to_agent", "a2a": "agent_to_agent"}
_FOURIER = {
    "map_encoder.r_pt2pt_emb": "map_encoder.relation",
    "agent_encoder.x_a_emb": "decoder.motion_embedding",
    "agent_encoder.r_t_emb": "decoder.temporal_relation",
    "agent_encoder.r_pt2a_emb": "decoder.map_relation",
    "agent_encoder.r_a2a_emb": "decoder.agent_relation",
}
_FOURIER_PARTS = {
    "0.weight": "weight_in",
    "0.bias": "bias_in",
    "1.weight": "norm_weight",
    "1.bias": "norm_bias",
    "3.weight": "weight_out",
    "3.bias": "bias_out",
}
_PREFIXES = {
    "map_encoder.type_pt_emb": "map_encoder.point_type_embedding",
    "map_encoder.polygon_type_emb": "map_encoder.polygon_type_embedding",
    "map_encoder.light_pl_emb": "map_encoder.light_embedding",
    "map_encoder.token_emb.mlp": "map_encoder.curve_embedding",
    "agent_encoder.type_a_emb": "decoder.type_embedding",
    "agent_encoder.shape_emb.mlp": "decoder.size_embedding",
    "agent_encoder.fusion_emb.mlp": "decoder.fusion",
    "agent_encoder.token_predict_head.mlp": "head",
    "agent_encoder.token_emb_veh.mlp": "decoder.token_embeddings.0",
    "agent_encoder.token_emb_ped.mlp": "decoder.token_embeddings.1",
    "agent_encoder.token_emb_cyc.mlp": "decoder.token_embeddings.2",
}


def _our_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames weights; the reference stores a normalisation twice that two inputs share."""
    renamed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        prefix = name.split(".", 2)
        if ".".join(prefix[:2]) in _FOURIER:
            continue
        ours = _attention_name(name) or _plain_name(name)
        if "norm_source" not in ours or "map_to_agent" in ours:
            renamed[ours] = weight
    for theirs, ours in _FOURIER.items():
        parts = {k.removeprefix(theirs + "."): v for k, v in weights.items() if theirs + "." in k}
        renamed |= {f"{ours}.{name}": weight for name, weight in _fourier(parts).items()}
    return renamed


def _attention_name(name: str) -> str | None:
    match = re.fullmatch(r"(\w+_encoder)\.([a-z0-9]+)_(?:attn_)?layers\.(\d+)\.(.+)\.(\w+)", name)
    if match is None:
        return None
    encoder, kind, index, part, leaf = match.groups()
    if encoder == "map_encoder":
        return f"map_encoder.layers.{index}.{_LAYERS[part]}.{leaf}"
    return f"decoder.blocks.{index}.{_ATTENTION[kind]}.{_LAYERS[part]}.{leaf}"


def _plain_name(name: str) -> str:
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    return _PREFIXES[prefix] + name.removeprefix(prefix)


def _fourier(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        "frequencies": weights["freqs.weight"],
        **{
            name.replace("to_out", "combine"): weight
            for name, weight in weights.items()
            if name.startswith("to_out")
        },
    }
    num_scalars = weights["freqs.weight"].shape[0]
    for theirs, ours in _FOURIER_PARTS.items():
        parts = torch.stack([weights[f"mlps.{i}.{theirs}"] for i in range(num_scalars)])
        if ours.startswith("weight"):
            parts = parts.mT
        elif ours != "bias_out":
            parts = parts[:, None]
        renamed[ours] = parts.contiguous()
    return renamed

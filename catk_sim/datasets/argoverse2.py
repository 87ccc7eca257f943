"""Argoverse 2's motion forecasting scenarios: tracks in parquet, and a map in JSON beside it.

Benjamin Wilson, William Qi, Tanmay Agarwal et al., "Argoverse 2: Next Generation Datasets for
Self-Driving Perception and Forecasting", arXiv:2301.00493.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from catk_sim.constants import NUM_STEPS, STEP_SECONDS
from catk_sim.datasets.argoverse2_map import recorded_map
from catk_sim.datasets.centering import to_scenario
from catk_sim.datasets.errors import DataError, require_file
from catk_sim.datasets.file_content import MAX_BYTES, read_content
from catk_sim.datasets.json_value import JsonValue
from catk_sim.datasets.numbering import number_names
from catk_sim.datasets.recording import STATE_FIELDS, RecordedAgents, RecordedLights, Recording
from catk_sim.datasets.windows import cut_window, join_phrases
from catk_sim.datatypes import AgentType, Scenario
from catk_sim.extras import needs_extra

MAP_PREFIX = "log_map_archive_"
"""How the names of map files begin."""

DEFAULT_SIZES = {
    "vehicle": (4.6, 1.9, 1.7),
    "bus": (12.0, 2.6, 3.2),
    "motorcyclist": (2.2, 0.9, 1.7),
    "cyclist": (1.8, 0.7, 1.7),
    "pedestrian": (0.7, 0.7, 1.7),
}
"""Length, width and height (m) that stand for those the source does not tell, by its types. They
are round numbers, of our choice."""

LACKS = join_phrases(
    [
        "heights (taken to be 0)",
        "interpolating lanes",
        "lane speed limits",
        "objects that are no road users (left out)",
        "road edges (taken from outlines of the drivable area)",
        "sizes (taken from a table by type)",
        "stop signs",
        "timestamps (taken to be 0.1 s apart)",
        "traffic lights",
    ]
)
"""What the format does not tell of any scenario."""

_AGENT_TYPES = {
    "vehicle": AgentType.VEHICLE,
    "bus": AgentType.VEHICLE,
    "motorcyclist": AgentType.CYCLIST,
    "cyclist": AgentType.CYCLIST,
    "pedestrian": AgentType.PEDESTRIAN,
}
_LEFT_OUT = ("static", "background", "construction", "riderless_bicycle", "unknown")

_SDC = "AV"
_SCORED = 2
"""Categories from here on are scored: 2, and 3 for the focal track."""

_TEXTS = ("track_id", "object_type", "scenario_id")
_INTEGERS = ("timestep", "object_category")
_NUMBERS = ("position_x", "position_y", "heading", "velocity_x", "velocity_y")
_COLUMNS = (*_TEXTS, *_INTEGERS, *_NUMBERS)

_MAX_ROWS = 2**18
_MAX_STEPS = 1000


def read_scenario(path: str | Path) -> Scenario:
    """Reads a scenario: the last 91 of its 110 steps.

    These are its 11 steps of history, of 50, and 80 of future: with the current step as the 11th,
    the 6 s that Argoverse scores lie wholly within the 8 s that are simulated. The agents to
    predict are the focal and the scored tracks.

    Boxes have the sizes of `DEFAULT_SIZES`; everything lies at height 0, the map too, as the
    tracks have no heights. Outlines of the drivable area are road edges. What is no road user, such
    as a static object, is left out. Neighbors of a lane are those that run its way.

    Args:
        path: The parquet file. The map is the JSON file `log_map_archive_ID.json` in its folder.

    Raises:
        DataError: If a file is damaged, or does not hold what it should; if there is no map; if
            the scenario is too short, as those of the test set are, which have no future.
        FileNotFoundError: If there is no such file.
        ImportError: If pyarrow is not installed.
    """
    path = Path(path)
    rows = _read_rows(path)
    scenario_id = _only(rows["scenario_id"], "scenario_id", str(path))
    map_path = path.with_name(f"{MAP_PREFIX}{path.stem.removeprefix('scenario_')}.json")
    if not map_path.is_file():
        raise DataError(f"wanted its map {map_path.name} beside it", str(path))
    roadgraph = recorded_map(JsonValue.parse(read_content(map_path), str(map_path)))
    agents = _agents(rows, str(path))
    num_steps = agents.valid.shape[1]
    if num_steps < NUM_STEPS:
        raise DataError(f"wanted at least {NUM_STEPS} steps, got {num_steps}", str(path))
    recording = Recording(
        scenario_id=scenario_id,
        lacks=LACKS,
        timestamps=STEP_SECONDS * np.arange(num_steps),
        agents=agents,
        roadgraph=roadgraph,
        lights=RecordedLights(
            step=np.zeros(0, np.int64),
            lane_id=np.zeros(0, np.int64),
            state=np.zeros(0, np.int64),
            stop_xyz=np.zeros((0, 3)),
        ),
    )
    return to_scenario(cut_window(recording, num_steps - NUM_STEPS), str(path))


def _read_rows(path: Path) -> dict[str, ndarray]:
    """Reads the columns that count."""
    require_file(path)
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        _check_size(file.metadata, str(path))
        names = file.schema_arrow.names
        missing = sorted(name for name in _COLUMNS if names.count(name) != 1)
        if missing:
            raise DataError(f"it lacks the columns {', '.join(missing)}, or has two", str(path))
        table = file.read(columns=list(_COLUMNS), use_threads=False)
        return {name: _column(table.column(name), name, str(path)) for name in _COLUMNS}
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise DataError(f"not a parquet file, or damaged: {problem}", str(path)) from error


def _pyarrow(name: str) -> Any:
    with needs_extra("parquet", "reading Argoverse 2"):
        return importlib.import_module(name)


def _check_size(metadata: Any, source: str) -> None:
    """Refuses what would take much memory, before anything is read."""
    if not 0 < metadata.num_rows <= _MAX_ROWS:
        raise DataError(f"wanted 1 to {_MAX_ROWS} rows, got {metadata.num_rows}", source)
    length = sum(
        metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
    )
    if length > MAX_BYTES:
        raise DataError(f"wanted at most {MAX_BYTES} bytes, decompressed, got {length}", source)


def _column(column: Any, name: str, source: str) -> ndarray:
    types = _pyarrow("pyarrow").types
    if name in _TEXTS:
        wanted, is_wanted, dtype = "texts", types.is_string, np.str_
    elif name in _INTEGERS:
        wanted, is_wanted, dtype = "integers", types.is_signed_integer, np.int64
    else:
        wanted, is_wanted, dtype = "numbers", types.is_floating, np.float64
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not is_wanted(kind) or column.null_count:
        got = "gaps" if is_wanted(kind) else column.type
        raise DataError(f"wanted {wanted} in the column {name}, got {got}", source)
    return np.array(column.to_pylist(), dtype)


def _only(values: ndarray, name: str, source: str) -> str:
    found = np.unique(values)
    if len(found) != 1:
        raise DataError(f"wanted one {name}, got {len(found)}", source)
    return str(found[0])


def _agents(rows: dict[str, ndarray], source: str) -> RecordedAgents:
    _check_rows(rows, source)
    used = np.isin(rows["object_type"], list(_AGENT_TYPES))
    rows = {name: column[used] for name, column in rows.items()}
    names, first, agent = np.unique(rows["track_id"], return_index=True, return_inverse=True)
    names = names.tolist()
    if _SDC not in names:
        raise DataError(f"wanted a track {_SDC}, got none", source)
    kinds = rows["object_type"][first].tolist()
    states = np.zeros((len(names), int(rows["timestep"].max()) + 1, len(STATE_FIELDS)))
    valid = np.zeros(states.shape[:2], bool)
    at = agent, rows["timestep"]
    valid[at] = True
    if valid.sum() < len(agent):
        raise DataError("a track has two rows for a step", source)
    states[at] = np.stack(
        [
            *(rows["position_x"], rows["position_y"], np.zeros(len(agent))),
            *np.array([DEFAULT_SIZES[kind] for kind in kinds])[agent].T,
            *(rows["heading"], rows["velocity_x"], rows["velocity_y"]),
        ],
        axis=1,
    )
    scored = rows["object_category"][first] >= _SCORED
    numbers = number_names(names)
    return RecordedAgents(
        agent_id=np.array([numbers[name] for name in names], np.int64),
        type=np.array([_AGENT_TYPES[kind] for kind in kinds], np.int64),
        states=states,
        valid=valid,
        sdc=names.index(_SDC),
        to_predict={int(index): 0 for index in np.flatnonzero(scored)},
        of_interest=[],
    )


def _check_rows(rows: dict[str, ndarray], source: str) -> None:
    steps = rows["timestep"]
    if not ((steps >= 0) & (steps < _MAX_STEPS)).all():
        raise DataError(f"wanted timesteps in [0, {_MAX_STEPS})", source)
    if len(np.unique(rows["track_id"])) * (int(steps.max()) + 1) > _MAX_ROWS:
        raise DataError(f"wanted at most {_MAX_ROWS} tracks times steps", source)
    unknown = set(rows["object_type"].tolist()) - {*_AGENT_TYPES, *_LEFT_OUT}
    if unknown:
        known = ", ".join([*_AGENT_TYPES, *_LEFT_OUT])
        raise DataError(f"wanted object_type to be one of {known}, got {min(unknown)!r}", source)

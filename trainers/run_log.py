"""What a run tells about itself: JSON lines and TensorBoard."""

import json
from pathlib import Path
from typing import Any


class RunLog:
    """Writes each record to `log.jsonl` and its numbers to TensorBoard.

    Args:
        folder: The run's folder.
        stage: Name of the stage, e.g. "bc": a field of each record and a prefix in TensorBoard.
        step: Records of this stage from this step on are dropped from the file: a resumed run
            writes them again.
    """

    def __init__(self, folder: Path, stage: str, *, step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stage = stage
        self._path = folder / "log.jsonl"
        self._forget_after(step)
        self._file = self._path.open("a")
        # Here, since TensorBoard is for those who train.
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, step: int, **numbers: float) -> None:
        """Logs the numbers of a step."""
        record = {"stage": self._stage, "step": step, **numbers}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._board.add_scalar(f"{self._stage}/{name}", value, step)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._board.close()

    def _forget_after(self, step: int) -> None:
        kept = [
            record
            for record in read_log(self._path)
            if record["stage"] != self._stage or record["step"] <= step
        ]
        self._path.write_text("".join(json.dumps(record) + "\n" for record in kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a run. A line that was cut off when the run was killed is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    # Whole lines end in a newline, so what follows the last one is cut off.
    return [json.loads(line) for line in lines[:-1]]

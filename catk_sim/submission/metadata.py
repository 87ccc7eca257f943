"""What a submission says of itself."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from catk_sim.submission.schema import SIM_AGENTS_SUBMISSION, message_class

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_COUNT = re.compile(r"\d+[KMBT]?")
_LINK = re.compile(r"https?://\S+")


@dataclass(frozen=True, kw_only=True)
class SubmissionMetadata:
    """What the challenge wants to know, as `sim_agents_submission.proto` has it.

    Raises:
        ValueError: Something that the challenge asks for is missing or not well-formed.
    """

    account_name: str
    """Full email address of the account at waymo.com/open."""

    unique_method_name: str
    """Short, descriptive and unique. A user's latest result of a method replaces earlier ones."""

    authors: tuple[str, ...]
    """Who made it."""

    affiliation: str
    """Where they work."""

    description: str
    """What the method is, in brief."""

    num_model_parameters: str
    """Estimate: an integer and perhaps one of K, M, B, T, such as 7M."""

    method_link: str = ""
    """Paper or page that describes the method."""

    uses_lidar_data: bool = False
    """Whether the model reads the data set's lidar. Ours do not."""

    uses_camera_data: bool = False
    """Whether the model reads the data set's camera data. Ours do not."""

    uses_public_model_pretraining: bool = False
    """Whether public language or vision-language models were used."""

    public_model_names: tuple[str, ...] = ()
    """Which, and how configured."""

    acknowledge_complies_with_closed_loop_requirement: bool = False
    """Says that the method complies with the challenge's rules of closed-loop simulation
    (arXiv:2305.12032, section 3), as a submission must."""

    def __post_init__(self) -> None:
        for name in ("unique_method_name", "affiliation", "description"):
            _refuse_unless(bool(getattr(self, name).strip()), f"wanted a {name}, got none")
        _refuse_unless(
            bool(self.authors) and all(author.strip() for author in self.authors),
            f"wanted at least one author, none without a name, got {list(self.authors)}",
        )
        self._check_forms()
        _refuse_unless(
            self.uses_public_model_pretraining == bool(self.public_model_names),
            "wanted public_model_names if and only if uses_public_model_pretraining, got "
            f"{self.uses_public_model_pretraining} and {list(self.public_model_names)}",
        )
        _refuse_unless(
            self.acknowledge_complies_with_closed_loop_requirement,
            "acknowledge_complies_with_closed_loop_requirement must be true: say so if the method "
            "complies with the challenge's rules of closed-loop simulation",
        )

    def _check_forms(self) -> None:
        _refuse_unless(
            _EMAIL.fullmatch(self.account_name) is not None,
            f"account_name must be an email address, got {self.account_name!r}",
        )
        _refuse_unless(
            _COUNT.fullmatch(self.num_model_parameters) is not None,
            "num_model_parameters must be an integer and perhaps one of K, M, B, T, such as 7M, "
            f"got {self.num_model_parameters!r}",
        )
        _refuse_unless(
            not self.method_link or _LINK.fullmatch(self.method_link) is not None,
            f"method_link must start with http:// or https://, got {self.method_link!r}",
        )

    def message(self) -> Any:
        """Makes the message `SimAgentsChallengeSubmission`, with no scenarios in it."""
        # Fields that are false are set too: the challenge wants to be told.
        return message_class("SimAgentsChallengeSubmission")(
            submission_type=SIM_AGENTS_SUBMISSION, **asdict(self)
        )


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)

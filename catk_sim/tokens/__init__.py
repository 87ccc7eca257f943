"""Motion tokens: the vocabulary, and motion told in it."""

from catk_sim.tokens.distance import candidate_distance as candidate_distance
from catk_sim.tokens.distance import corner_distance as corner_distance
from catk_sim.tokens.distance import token_distance as token_distance
from catk_sim.tokens.matching import match_step as match_step
from catk_sim.tokens.matching import match_trajectory as match_trajectory
from catk_sim.tokens.matching import noisy_tokenize as noisy_tokenize
from catk_sim.tokens.matching import recovery_token as recovery_token
from catk_sim.tokens.matching import token_end as token_end
from catk_sim.tokens.matching import tokenize as tokenize
from catk_sim.tokens.motion_tokens import MotionTokens as MotionTokens
from catk_sim.tokens.motion_tokens import TokenizedLog as TokenizedLog
from catk_sim.tokens.sampling import closest_among_top_k as closest_among_top_k
from catk_sim.tokens.sampling import closest_to_pose_among_top_k as closest_to_pose_among_top_k
from catk_sim.tokens.sampling import sample_top_k as sample_top_k
from catk_sim.tokens.sampling import sample_top_p as sample_top_p
from catk_sim.tokens.vocabulary import MotionVocabulary as MotionVocabulary
from catk_sim.tokens.vocabulary import Provenance as Provenance

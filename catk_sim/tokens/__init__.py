"""Motion tokens: the vocabulary, and motion told in it."""

from catk_sim.tokens.motion_tokens import MotionTokens as MotionTokens
from catk_sim.tokens.motion_tokens import TokenizedLog as TokenizedLog
from catk_sim.tokens.vocabulary import MotionVocabulary as MotionVocabulary

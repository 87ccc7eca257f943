"""An ego policy: a Gaussian mixture over the next half second, on SMART's encoder.

Zhang et al.: "Closed-Loop Supervised Fine-Tuning of Tokenized Traffic Models" (arXiv:2412.05334),
whose second result it is.
"""

from policies.ego_gmm.config import MixtureConfig as MixtureConfig

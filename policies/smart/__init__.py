"""SMART: scalable multi-agent real-time motion generation by next-token prediction.

Wu, Feng, Gao, Kan: "SMART" (arXiv:2405.15677), in the form of Zhang et al.: "Closed-Loop
Supervised Fine-Tuning of Tokenized Traffic Models" (arXiv:2412.05334).
"""

from policies.smart.config import SMARTConfig as SMARTConfig

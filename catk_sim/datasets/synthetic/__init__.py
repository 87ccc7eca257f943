"""The built-in data set: traffic scenes made from a seed."""

from catk_sim.datasets.synthetic.benchmark import benchmark_path as benchmark_path
from catk_sim.datasets.synthetic.benchmark import load_benchmark as load_benchmark
from catk_sim.datasets.synthetic.generator import KINDS as KINDS
from catk_sim.datasets.synthetic.generator import generate_futures as generate_futures
from catk_sim.datasets.synthetic.generator import generate_scenario as generate_scenario
from catk_sim.datasets.synthetic.streams import GENERATOR_VERSION as GENERATOR_VERSION

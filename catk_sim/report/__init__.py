"""Reports of evaluations: one HTML file with tables, charts and a player, and nothing to fetch."""

from catk_sim.report.page import write_report as write_report
from catk_sim.report.records import Choices as Choices
from catk_sim.report.records import Drive as Drive
from catk_sim.report.records import Figure as Figure
from catk_sim.report.records import Histogram as Histogram
from catk_sim.report.records import Measure as Measure
from catk_sim.report.records import Report as Report
from catk_sim.report.records import ReportScene as ReportScene

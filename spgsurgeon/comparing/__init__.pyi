from .arguments import Arguments, arguments_of, check_start
from .choice import Comparison
from .devices import place
from .layout import COSTS, DECODED, DOCUMENT, FIGURES, RESULTS, TABLE
from .lineup.arms import NO_EARLY_STOPPING, Lineup, line_up
from .lineup.built_in import BUILT_IN, PLAIN, SEARCH
from .plan import Grid, read_plan
from .pool import hire, one_thread
from .reading import HowFar, arm_of, how_far, is_comparison, read_comparison
from .records import ComparisonRecord, Trial
from .runs import folder_of, merit, read_results, results_of
from .search import check_search
from .starting import OF_DECODED, go_on, preview, start
from .table import COST_HEAD, HEAD, cost_rows, markdown, metric_of, of_the_base, remarks, rows

__all__ = [
    "BUILT_IN",
    "COSTS",
    "COST_HEAD",
    "DECODED",
    "DOCUMENT",
    "FIGURES",
    "HEAD",
    "NO_EARLY_STOPPING",
    "OF_DECODED",
    "PLAIN",
    "RESULTS",
    "SEARCH",
    "TABLE",
    "Arguments",
    "Comparison",
    "ComparisonRecord",
    "Grid",
    "HowFar",
    "Lineup",
    "Trial",
    "arguments_of",
    "arm_of",
    "check_search",
    "check_start",
    "cost_rows",
    "folder_of",
    "go_on",
    "hire",
    "how_far",
    "is_comparison",
    "line_up",
    "markdown",
    "merit",
    "metric_of",
    "of_the_base",
    "one_thread",
    "place",
    "preview",
    "read_comparison",
    "read_plan",
    "read_results",
    "remarks",
    "results_of",
    "rows",
    "start",
]

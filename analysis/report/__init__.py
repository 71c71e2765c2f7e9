"""From stored results to two documents: an HTML page with everything on it, and the ledger."""

from analysis.report.ledger import ledger as ledger
from analysis.report.page import page as page
from analysis.report.stored import Stored as Stored
from analysis.report.stored import Verdict as Verdict
from analysis.report.stored import failures as failures
from analysis.report.stored import read as read
from analysis.report.stored import read_all as read_all
from analysis.report.writing import write as write

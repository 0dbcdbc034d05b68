"""The report on one or several evaluations: one HTML page that needs no network, Markdown and LaTeX.

    python -m evaluation.report eval_results/AVQA eval_results/stamps --output report

reading.py reads what evaluations wrote; the files named after a chapter's parts turn that into the blocks of
document.py (tables, text, figures, examples); page.py, markdown.py and latex.py write blocks. See
docs/report.md.
"""

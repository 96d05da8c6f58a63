"""In: runs. Out: findings: groups, tables, comparisons, curves, words."""

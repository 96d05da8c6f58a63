"""In: findings. Out: headings, paragraphs, tables and plots."""

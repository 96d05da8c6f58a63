"""In: headings, paragraphs, tables and plots. Out: page, LaTeX, markdown, JSON, plain text."""

"""In: runs. Out: what they show (analysis), as blocks (document), in every form (render)."""

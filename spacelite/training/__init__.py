"""Training. In: a cache and the configs of heads. Out: trained heads, their metrics and logits."""

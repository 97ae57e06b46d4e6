"""Products in other semirings: reductions of messages by their extremum or log-sum-exp."""

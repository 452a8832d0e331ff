"""A capacity report: what to buy, why, and how sure; made of the optimizer's and twin's answers."""

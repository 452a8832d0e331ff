"""Of several processes that plan one deployment, one acts: who that is, and for how long.

A lease names its holder and a term that grows with every change of hands. The holder renews it;
the others watch. Nobody compares two machines' clocks: a lease may be taken once it was seen
unchanged for its whole duration, and its holder has stopped acting by its own clock before that.
"""

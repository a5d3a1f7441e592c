"""Which tool saves a heap profile before the OOM kill, and how much of the memory it explains.

``python -m benchmarks.race`` (or ``make race``) prints the tables; ``python -m benchmarks.race --help`` lists what can
be left out. Go programs that take memory in different ways run into their limits, again and again, each beside one
tool: a poller as one would write it, at 1 s and at 100 ms, the sidecar as it comes, and the sidecar with its guard.

On a kernel with cgroup v1 the race takes place in v1 cgroups, with v2 in those. Where there is no network, and in a
virtual machine that throws its files away, build everything before: ``python -m benchmarks.race --build-only``. Where
page faults are slow, as in user-mode Linux, a program with a CPU quota takes a minute to its kill: leave them out with
``--cpu none``.
"""

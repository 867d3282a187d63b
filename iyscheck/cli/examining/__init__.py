"""What `iyscheck doctor` looks at: each look gives findings, and no look ends in an error.

outcomes    what can be found, and what it means
sentences   findings in words, in two languages
here        keys, store, data, clock, kernel, certificates, callers
asking      ports, servers, metrics
"""

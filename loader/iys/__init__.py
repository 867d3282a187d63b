"""İYS's API as its clients see it: what may be asked, how fast, with which token, and what comes back.

It knows neither store nor rows. Every other place learns of İYS through here (decision 96).
"""

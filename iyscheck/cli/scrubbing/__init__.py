"""List washing: a list's bytes stay as they are, and the answers about its recipients are put behind each row.

detecting       what kind of list it is          records         bytes to rows, by quotes and delimiters
lists           what every kind of list gives    text            lists of text: CSV and TXT
asking          addresses to answers             answers         answers as cells
answering       rows with answers behind them    resuming        how far a list was washed
outputs         files that appear when whole     washing         one list from start to end
"""

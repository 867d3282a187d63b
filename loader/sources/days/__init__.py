"""Days as İYS counted, hashed and stamped them: is all of a brand's day in the store (decision 105)?"""

"""Where rows come from. Each source hands pieces to `loading`, and knows of no other source."""

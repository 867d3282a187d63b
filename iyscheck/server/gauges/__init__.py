"""What a scrape reads when it comes, and how scrapes are answered; what is counted meanwhile is in `metrics`."""

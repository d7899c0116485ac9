"""What papers declare, how their claims are judged, and the tables, figures and run folders that it is made from."""

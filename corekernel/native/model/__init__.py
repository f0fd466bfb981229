"""An exhaustively checked model of the call protocol; see README.md."""

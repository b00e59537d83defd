"""What the operator sees of channels and money: answers from the books, and the page itself."""

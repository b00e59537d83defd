"""What a request says and an answer says in protocol v1: text to checked values, values to bodies. Nothing here decides anything."""

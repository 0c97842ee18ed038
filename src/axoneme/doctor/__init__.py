"""What is wrong with a node, from cause to cause: facts, checks that judge them, causes before symptoms."""

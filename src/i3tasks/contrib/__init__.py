"""What ties i3tasks to other packages. Nothing of them is imported unless it is used."""

// Lets main.go declare a function that has its body elsewhere.

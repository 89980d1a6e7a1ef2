#include <stdio.h>
#include "greet.h"
void greet(const char *whom) { printf("Hello, %s\n", whom); }

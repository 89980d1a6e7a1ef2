#include <stdio.h>
int main(void) { puts("app " VERSION); return 0; }

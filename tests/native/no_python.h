/* What python.c does for a service written in Python: these services have no interpreter to enter. */
#include "carrier.h"

int hmk_python_open(void) { return 0; }
void hmk_python_begin(struct hmk_carrier *carrier) { (void)carrier; }
void hmk_python_end(struct hmk_carrier *carrier) { (void)carrier; }
void hmk_python_enter(struct hmk_carrier *carrier, int in_line) { (void)carrier, (void)in_line; }
void hmk_python_leave(struct hmk_carrier *carrier) { (void)carrier; }

/* embedding: a program with a Python inside, which starts it as often as it is told. */
#include <Python.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  int failed = 0;
  for (int lives = atoi(argv[2]); lives > 0; --lives) {
    Py_InitializeEx(0);
    FILE* const program = fopen(argv[1], "r");
    if (program == NULL) return 2;
    failed |= PyRun_SimpleFileExFlags(program, argv[1], 1, NULL);
    failed |= Py_FinalizeEx();
  }
  return failed != 0;
}

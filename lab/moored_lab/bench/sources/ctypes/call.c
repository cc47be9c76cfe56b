// call.c: the C library that calls what ctypes made of a Python function.
void call(void* callback) {
  ((void (*)(void))callback)();
}

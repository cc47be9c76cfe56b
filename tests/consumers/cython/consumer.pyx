# distutils: language = c++
# cython: language_level = 3
"""A Cython module: its pthread nests moored_attach and Cython's `with gil` both ways."""

cdef extern from "moored/moored.h" nogil:
    ctypedef enum moored_status:
        MOORED_OK
    ctypedef struct moored_attachment:
        pass
    moored_status moored_open()
    moored_status moored_attach(moored_attachment* attachment)
    void moored_detach(moored_attachment* attachment)
    const char* moored_describe(moored_status status)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    int pthread_create(pthread_t* thread, void* attributes, void* (*work)(void*) noexcept nogil,
                       void* argument)
    int pthread_join(pthread_t thread, void** result)

cdef struct Job:
    void* callback
    int rounds
    moored_status status


cdef void call(void* callback) noexcept with gil:
    (<object>callback)()


cdef void attach_and_call(Job* job) noexcept nogil:
    cdef moored_attachment attached
    job.status = moored_attach(&attached)
    if job.status == MOORED_OK:
        call(job.callback)  # takes the GIL once more, by PyGILState_Ensure
    moored_detach(&attached)


cdef void call_within_gil(Job* job) noexcept with gil:
    cdef moored_attachment attached
    job.status = moored_attach(&attached)
    if job.status == MOORED_OK:
        (<object>job.callback)()
    moored_detach(&attached)


cdef void* work(void* argument) noexcept nogil:
    cdef Job* job = <Job*>argument
    cdef int i
    for i in range(job.rounds):
        attach_and_call(job)
        call_within_gil(job)
    return NULL


def call_from_thread(callback, int rounds):
    """Call back from a native thread."""
    cdef Job job = Job(<void*>callback, rounds, MOORED_OK)
    cdef pthread_t thread
    if pthread_create(&thread, NULL, work, &job) != 0:
        raise RuntimeError("no thread")
    with nogil:
        pthread_join(thread, NULL)
    if job.status != MOORED_OK:
        raise RuntimeError(moored_describe(job.status).decode())


if moored_open() != MOORED_OK:
    raise MemoryError

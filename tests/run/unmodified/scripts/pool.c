/* A pool of native threads, as the extensions of many libraries have one. */
#include <pthread.h>
#include <stdlib.h>

typedef void (*callback)(int thread, int call);

struct worker {
  struct pool* pool;
  int number;
  pthread_t thread;
};

struct pool {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  callback function;
  int calls; /* how many each thread makes in this round */
  int round; /* counts up when there is something to do */
  int busy;  /* threads that have not finished the round */
  int closing;
  int size;
  struct worker workers[];
};

static void* work(void* given) {
  struct worker* self = given;
  struct pool* pool = self->pool;
  int done = 0;
  pthread_mutex_lock(&pool->mutex);
  for (;;) {
    while (pool->round == done && !pool->closing) pthread_cond_wait(&pool->changed, &pool->mutex);
    if (pool->round == done) break;
    done = pool->round;
    callback function = pool->function;
    int calls = pool->calls;
    pthread_mutex_unlock(&pool->mutex);
    for (int call = 0; call < calls; ++call) function(self->number, call);
    pthread_mutex_lock(&pool->mutex);
    if (--pool->busy == 0) pthread_cond_broadcast(&pool->changed);
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

/* All of these are called without the GIL, one at a time. */

struct pool* pool_open(int size) {
  struct pool* pool = calloc(1, sizeof *pool + (size_t)size * sizeof(struct worker));
  if (!pool) return NULL;
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->changed, NULL);
  for (; pool->size < size; ++pool->size) {
    struct worker* worker = &pool->workers[pool->size];
    worker->pool = pool;
    worker->number = pool->size;
    if (pthread_create(&worker->thread, NULL, work, worker) != 0) abort();
  }
  return pool;
}

void pool_call(struct pool* pool, callback function, int calls) {
  pthread_mutex_lock(&pool->mutex);
  pool->function = function;
  pool->calls = calls;
  pool->busy = pool->size;
  ++pool->round;
  pthread_cond_broadcast(&pool->changed);
  while (pool->busy) pthread_cond_wait(&pool->changed, &pool->mutex);
  pthread_mutex_unlock(&pool->mutex);
}

/* Joins the threads. */
void pool_close(struct pool* pool) {
  pthread_mutex_lock(&pool->mutex);
  pool->closing = 1;
  pthread_cond_broadcast(&pool->changed);
  pthread_mutex_unlock(&pool->mutex);
  for (int at = 0; at < pool->size; ++at) pthread_join(pool->workers[at].thread, NULL);
  pthread_cond_destroy(&pool->changed);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

// Starts a thread: pthread_create(3), because the constructor of std::thread
// throws. A shared object with this in it stays mapped.
//
// Any thread may call it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_CREATE_THREAD_H_
#define TOCSIN_CONCURRENCY_INTERNAL_CREATE_THREAD_H_

#include <pthread.h>

namespace tocsin::inline v0_2::internal {

// The thread calls run(argument). Returns the errno.
int CreateThread(pthread_t& thread, void* (*run)(void*), void* argument);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_CREATE_THREAD_H_

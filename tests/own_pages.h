// An object in pages of its own, which are gone once it is destroyed: whoever
// touches it after that dies, with or without a sanitizer.
//
// One thread makes and destroys it.
#ifndef TOCSIN_TESTS_OWN_PAGES_H_
#define TOCSIN_TESTS_OWN_PAGES_H_

#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <utility>

namespace tocsin {

template <typename T>
class OwnPages {
 public:
  template <typename... Args>
  explicit OwnPages(Args&&... args)
      : object_(::new (Map()) T(std::forward<Args>(args)...)) {}
  OwnPages(const OwnPages&) = delete;
  OwnPages& operator=(const OwnPages&) = delete;
  ~OwnPages() { reset(); }

  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }

  void reset() {
    T* const object = std::exchange(object_, nullptr);
    if (object == nullptr) return;
    object->~T();
    // The address is not given to anybody else.
    if (mprotect(object, sizeof(T), PROT_NONE) != 0) abort();
  }

 private:
  static void* Map() {
    void* const pages = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) abort();
    return pages;
  }

  T* object_;
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_OWN_PAGES_H_

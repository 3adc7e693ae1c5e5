// In the Abseil of Debian 12 (20220623), Mutex wakes a waiter through memory
// that ThreadSanitizer did not see handed over. Later releases tell it to look
// away there.
extern "C" const char* __tsan_default_suppressions();

extern "C" const char* __tsan_default_suppressions() {
  return "race:absl::*Waiter::Post\n";
}

// SPDX-License-Identifier: MIT
// The heap and the locks of the C library, counted, and a filter of system calls. The program has
// to export its symbols, so that a plug-in finds these.

#include "watched_calls.hpp"

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstddef>
#include <iterator>

namespace {
thread_local constinit bool watching = false;
thread_local constinit long calls = 0;
void count() {
  if (watching) ++calls;
}
}  // namespace

void watch_calls(bool on) { watching = on; }
long watched_calls() { return calls; }

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t size) { return count(), __libc_malloc(size); }
void* calloc(std::size_t n, std::size_t size) { return count(), __libc_calloc(n, size); }
void* realloc(void* p, std::size_t size) { return count(), __libc_realloc(p, size); }
void* memalign(std::size_t to, std::size_t size) { return count(), __libc_memalign(to, size); }
void* aligned_alloc(std::size_t to, std::size_t size) { return count(), __libc_memalign(to, size); }
int posix_memalign(void** p, std::size_t to, std::size_t size) {
  count();
  *p = __libc_memalign(to, size);
  return *p ? 0 : ENOMEM;
}
void free(void* p) { return count(), __libc_free(p); }
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  count();
  static const auto lock =
      reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  return lock(mutex);
}
}

prison run_in_prison(bool (*call)(void*), void* object) {
  constexpr int free_cell = 77;
  const pid_t child = fork();
  if (child < 0) return prison::not_there;
  if (child == 0) {
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const rlimit no_core{0, 0};  // when it is killed, as one is on purpose
    (void)setrlimit(RLIMIT_CORE, &no_core);
    const sock_fprog filter{static_cast<unsigned short>(std::size(rules)), rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0)
      _exit(free_cell);
    const bool right = call(object);
    _exit(right ? 0 : 1);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) return prison::not_there;
  if (WIFSIGNALED(status)) return prison::killed;
  if (WEXITSTATUS(status) == free_cell) return prison::not_there;
  return WEXITSTATUS(status) == 0 ? prison::returned : prison::failed;
}

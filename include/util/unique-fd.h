// SPDX-License-Identifier: BSD-2-Clause
// Owning and borrowing a file descriptor are different types. A bare int fd appears only here and
// in the syscall wrappers.
#pragma once

#include <utility>

namespace ferry {

class BorrowedFd {
 public:
    constexpr BorrowedFd() = default;
    constexpr explicit BorrowedFd(int fd) : fd_(fd) {}
    constexpr int raw() const { return fd_; }
    constexpr bool valid() const { return fd_ >= 0; }

 private:
    int fd_ = -1;
};

class UniqueFd {
 public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}  // takes ownership
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() { reset(); }

    bool valid() const { return fd_ >= 0; }
    int raw() const { return fd_; }
    BorrowedFd borrow() const { return BorrowedFd(fd_); }
    void reset() noexcept;                            // closes
    int release() { return std::exchange(fd_, -1); }  // gives ownership away

 private:
    int fd_ = -1;
};

}  // namespace ferry

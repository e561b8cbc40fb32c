"""Reply -> Verdict: checks, their composition, and the sandbox that some of them need.

registry  spec -> verifier              spec, kinds, options   what a spec may say
text, structure, quantity, maths, code, samples, judge, custom   the checks
combine   all, any, then                leaf          what every check shares
foresight   what can be told of an answer that has only begun
answer    finds answers in text         sandbox, namespace, harness   run code that nobody vouches for
"""

from governor.verify.registry import build_verifier, known_verifiers, may_foresee, problems_of
from governor.verify.sandbox import SandboxLimits
from governor.verify.spec import SpecProblem

__all__ = ["SandboxLimits", "SpecProblem", "build_verifier", "known_verifiers", "may_foresee", "problems_of"]

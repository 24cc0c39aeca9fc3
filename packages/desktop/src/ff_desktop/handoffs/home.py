"""What handoffs use of this desktop. Put together in one place, and passed in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.handoff import DesktopRef
from ff_core.handoff.service import Ground, Handoffs
from ff_core.ids import WorkspaceId
from ff_core.projects.repository import Project
from ff_core.projects.service import Projects
from ff_core.store.engine import Store
from ff_core.workspaces import repository as workspaces
from ff_core.workspaces.repository import Workspace


@dataclass(frozen=True)
class Home:
    """This desktop: its database, its projects and their worktrees, and who its user is for git."""

    store: Store
    moves: Handoffs
    projects: Projects
    desktop: DesktopRef
    environment: Mapping[str, str]
    """The user's own."""
    config_dir: Path
    """``CLAUDE_CONFIG_DIR`` of his agents."""
    worktrees: Path
    """Below it each project has a folder for its worktrees."""

    def workspace(self, workspace_id: WorkspaceId) -> Workspace | None:
        """The workspace as this desktop knows it, wherever it lives."""
        return workspaces.find(self.store, workspace_id)

    def project_of(self, workspace: Workspace) -> Project | None:
        """The project it is in."""
        return None if workspace.project_id is None else self.projects.get(workspace.project_id)

    def ground(self, worktree: Path) -> Ground:
        """Where the things of a workspace in that worktree are."""
        return Ground(repository=worktree, config_dir=self.config_dir)
